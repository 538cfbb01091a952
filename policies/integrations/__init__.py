"""The router inside other people's gateways; what a module needs beside the standard library is an extra of its own."""
