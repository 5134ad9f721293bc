"""`pinflow up`: a real Postgres and a real Temporal from wheels, and the processes of Pinflow, supervised."""
