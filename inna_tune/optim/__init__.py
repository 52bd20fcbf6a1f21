"""INNA, its relatives, decay laws and closed-form dynamics. Knows torch only."""
