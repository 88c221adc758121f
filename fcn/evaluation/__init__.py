"""How good labels are: metrics, and tables and pictures of them."""
