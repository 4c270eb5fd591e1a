"""Plans that are verified by simulation: headroom as a decision (docs/headroom.md).

`draws` makes the arrivals that plans are tried on, `floor` refuses SLOs that no hardware meets, `guess` states the
first headroom from theory, `trial` simulates a plan and counts its SLOs, `learning` reads from one simulation how much
headroom each deployment needs, `moves` makes smaller fleets, `loop` puts them together, `alternatives` prices other
ways where static headroom is the wrong tool.
"""
