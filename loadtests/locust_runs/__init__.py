"""Load tests: locust users against the running product, and the report of what they observed.

Everything that a client does is planned first (`plan.py`, seeded), so that every policy and every system gets the same
requests at the same moments. Two locust files play a plan from locust's own environment:

    open_loop.py     arrivals by schedule, whatever is still in flight: latency counts from the scheduled moment, so a
                     slow server can't hide behind clients that wait for it (no coordinated omission)
    closed_loop.py   as many users as the shape says; each sends its next request when its answer is there

    shapes.py        offered load over time: steady, ramp, burst, soak
    plan.py          requests: chat, documents, embeddings, several keys; lengths from the Azure traces
    scenarios.py     the named runs, in shares of the engine's capacity
    player.py        one request through geventhttpclient, reported to locust as metrics (locust's environment)
    samples.py       what is stored of each request, and figures over it
    site.py          fake engine, fake cloud and the real router
    session.py       runs scenarios and the sweep and judges them
    report.py        one self-contained HTML page
"""
