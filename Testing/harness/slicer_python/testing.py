"""Stand-in for slicer.testing: runs the unit tests of a module as ctest does."""

import sys
import unittest


def runUnitTest(path, testname):
    """Run the tests of the module `testname`, found in the folder(s) `path`; raises Exception if one fails."""
    sys.path.extend([path] if isinstance(path, str) else path)
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestLoader().loadTestsFromName(testname))
    if not result.wasSuccessful():
        exitFailure()


def exitSuccess():
    """The test went well."""


def exitFailure(message=""):
    """The test failed."""
    raise Exception(message)
