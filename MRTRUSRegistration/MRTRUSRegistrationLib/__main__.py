"""`python -m MRTRUSRegistrationLib` is the command `mrtrus`."""

from .entry import main

main()
