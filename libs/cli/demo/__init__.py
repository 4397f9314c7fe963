"""The demo: hospitals train together and a clinic asks, through real processes, and a page that shows how it
went.
"""
