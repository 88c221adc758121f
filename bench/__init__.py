"""The user's speed comparison: ``python bench/run.py``. Not installed with the package."""
