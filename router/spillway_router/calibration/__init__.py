"""Making of calibration files: labelled answers -> fitted probability, certified threshold, report.

This package needs the extra `calibrate` (scikit-learn, numpy, matplotlib). The router never imports it: the router
applies the finished file in plain Python (core/confidence/calibration.py).
"""
