"""Registration of prostate MR to transrectal ultrasound (TRUS), importable without Slicer.

Research use only: not a medical device.
"""

__version__ = "0.1.0"
