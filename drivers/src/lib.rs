//! Frame memory and packet drivers for handfast.
