"""`make demo`: the main job end to end on real vLLM and real documents, and a verdict on each promise.

Starts a stand-in cloud (loadtests.fake_cloud) and the product (`spillway up`), sends documents while the engine warms
up, then calmly, then in a burst far past what the engine can hold, and checks what came back against what was promised.
"""
