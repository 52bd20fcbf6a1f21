"""Adapters that put INNA inside other frameworks for AutoML: a file each, imported by who has the framework installed.

Nothing of a framework is imported before its adapter is: ``inna_tune.plugins.flaml``, ``inna_tune.plugins.autogluon``.
"""
