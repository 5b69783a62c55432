"""Forms that several sources share: message lists, detection sets, tracked objects, and what is wrong with them."""
