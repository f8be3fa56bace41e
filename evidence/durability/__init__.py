"""Trials of the ledger: does every acknowledged row survive kill -9 and power cuts?"""
