"""The faults that `benchmarks/fault_campaign.py` provokes, a module for each area."""
