"""MiniCPM-Llama3-V 2.5 from transformers' own parts."""
