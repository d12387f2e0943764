"""`python -m MRTRUSRegistrationLib` is the command `mrtrus`."""

from .cli import main

main()
