"""Labelled answers of the demo model, asked through real vLLM: what confidence is measured on.

answers.jsonl.gz holds the first 1,708 documents from HELD_OUT_SEEDS[100_000] on, in each of the five kinds of damage,
greedy and without a grammar: 8,540 answers. fresh_answers.jsonl.gz holds the next 1,708 documents alike, for judging
alone; second_looks.jsonl.gz what the model said of its own answers to the first. No report text is stored, since
documents come back from their seeds.
"""
