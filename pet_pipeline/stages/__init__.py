"""One file for each verb of a pipeline: the verb builds the calls, `_verb` does a unit's work.

The only place where learning and bookkeeping meet. Learning code, and torch with it, is imported
by the work, so that plans are made without it.
"""
