"""Importers: logs of gateways, evaluation harnesses and warehouses, made into logs that can be fitted."""
