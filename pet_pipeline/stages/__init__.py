"""One file for each verb of a pipeline: the verb builds units, whose `work` does them.

The only place where learning and bookkeeping meet. Learning code, and torch with it, is imported
by the work, so that plans are made without it.
"""
