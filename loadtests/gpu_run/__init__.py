"""The whole product on a real GPU: `spillway up` with vLLM, measured and then broken on purpose.

dummy.py    a checkpoint of a known shape without weights, which vLLM fills with random ones
client.py   streamed requests in processes of their own, timed
steps.py    what is measured, one function per step
"""
