"""Frameworks side by side, each as its own documentation would have it."""

import bottle_app
import cgi_app
from flask_app import app as flask_app
from werkzeug.middleware.dispatcher import DispatcherMiddleware

application = DispatcherMiddleware(flask_app, {"/bottle": bottle_app.application, "/cgi": cgi_app.application})
