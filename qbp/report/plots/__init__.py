"""Plots: pictures of trainings and of smaller models, drawn by matplotlib."""
