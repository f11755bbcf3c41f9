"""Losses between a student and its teachers: of class scores, and of features."""
