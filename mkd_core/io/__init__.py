"""Files: volumes, DICOM, weights bundles; read with reasons, written whole or not at all."""
