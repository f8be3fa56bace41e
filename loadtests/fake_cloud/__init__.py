"""A fake cloud: one real HTTP process that speaks Groq's API, for the demo, the tests and the load tests.

It answers biometry documents from an oracle (a corpus file that says what each document holds), takes as long as a
cloud would take, sends rate-limit headers, refuses a wrong key, and keeps its own bill. The bill is computed here,
apart from the router's money code, so that comparing the two proves something.
"""
