"""A loopback double of the IBM Quantum Platform REST API, for tests with the genuine client; see README.md."""

from ibm_server.faults import Fault
from ibm_server.records import Instance
from ibm_server.server import IBMServer

__all__ = ["Fault", "IBMServer", "Instance"]
