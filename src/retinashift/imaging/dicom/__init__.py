"""Ophthalmic DICOM: reading, derived objects, parametric maps, de-identification."""
