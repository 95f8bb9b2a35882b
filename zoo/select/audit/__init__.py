"""A check of data before a run: ``check_data`` and ``zoo data check``."""

from zoo.select.audit.check import check_data as check_data
