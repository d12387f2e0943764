"""The reader study: diagnostic accuracy, agreement, confidence and laterality before and after registration.

Source: Yu et al. 2025, DIGITAL HEALTH, doi 10.1177/20552076251375870, clinical assessment.
"""
