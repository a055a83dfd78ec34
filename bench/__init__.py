"""What `make bench` runs: Muster and its installable peers, side by side, in the same run.

A figure is operations per CPU-second of the *server* process (user and system, from /proc), so a
slow load generator makes a run longer and not a server slower. Server and generator are pinned to
different cores where there are two. Rounds are interleaved, medians are quoted.
"""
