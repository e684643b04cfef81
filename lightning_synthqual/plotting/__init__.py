"""Figures and tables, drawn from data that metrics return."""
