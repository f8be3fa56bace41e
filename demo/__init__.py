"""`make demo`: the main job end to end on real vLLM and real documents, and a verdict on each promise.

It starts a fake cloud (loadtests.fake_cloud) and the product (`spillway up`), sends documents while the engine warms
up, then calmly, then in a burst far beyond what the engine can hold, and compares the answers with the promises.
"""
