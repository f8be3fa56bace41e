"""Making calibration files: labelled answers -> fitted probability, certified threshold, report.

Needs the extra `calibrate` (scikit-learn, numpy, matplotlib). The router never imports this package: it applies the
finished file in plain Python (core/confidence/calibration.py).
"""
