"""Labelled answers of the demo model, collected through real vLLM, on which confidence is measured.

answers.jsonl.gz holds the answers to the first 1,708 documents from HELD_OUT_SEEDS[100_000] on, in each of the five
kinds of damage, greedy and without a grammar: 8,540 answers. fresh_answers.jsonl.gz holds those to the next 1,708
documents, for judging alone; second_looks.jsonl.gz holds what the model said of its own answers in the first file. No
report text is stored, since documents are generated again from their seeds.
"""
