"""An iteration-level model of a batching engine, to compare overflow rules on real request traces.

It answers one question that no laptop can answer with a real GPU: which rule sends the fewest requests to the cloud
while the local requests keep their promise? The engine is a model (step times of Llama-3-8B on an A100); the rule under
test is the router's own code in `spillway_router.core.routing.backlog`.
"""
