"""The folders that stages hand on: model folders, and inputs and outputs by path or by reference."""
