"""Scans: DICOM images and series, NIfTI files, and volumes resampled from them."""
