"""Ordinary speech that every version is measured on beside the untouched base: how it is made, scored and told."""
