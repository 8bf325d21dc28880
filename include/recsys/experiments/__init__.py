"""Two models or more against each other, on customers who stay on their side.

`definitions` says what an experiment is and who is on which side, `state` which ones run,
`planning` how long one takes, `statistics` what may be said while it runs."""
