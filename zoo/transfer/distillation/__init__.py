"""Distillation: losses, teachers, and the objective of a student."""
