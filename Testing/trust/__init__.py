"""What is done to the software that it must bear: bad volumes, hostile weights, faults, and every way in which a volume
can be stored.

python -m Testing.trust [--quick]
"""

from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
