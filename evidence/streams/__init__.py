"""Streams that break in every way, and the shapes of providers, before real client libraries.

protocols   whole answers of the four protocols, as events that every client library accepts
faults      how an answer breaks, and in which packets it arrives: the fault matrix
upstream    plays the packets of a case on a socket
client      records every byte that the router sends for a case
run         one process: router, upstream and client, through all cases (`python -m evidence.streams.run`)
builds      runs the compiled and the interpreted router, and compares what they sent
judging     starts the client libraries in environments of their own and asks them
replay      gives the recorded bytes to a client library
verdicts    whether a client took a truncated answer for a whole one
shapes      provider answers for the comparison of objects; shapes/*.yaml name their sources
truncations, differences, objects   the measurements
"""
