"""Audits of local answers, and the thresholds that their findings move."""
