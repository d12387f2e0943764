"""The browser app: the review of the Slicer module on real Slicer views, served to any browser.

`command` is `mrtrus view`; `front` gives every visitor a process of their own (`session`), whose sections
work on a scene of their own through `MRTRUSRegistrationLib.mrml`. Research use only: not a medical device.
"""
