"""Radiographs from an archive of the hospital's own, by DICOMweb (PS3.18: QIDO-RS and WADO-RS)."""
