std = "luajit"
max_line_length = 120
files["spec"] = { std = "+busted" }
files["engine/host"] = { read_globals = { "perigee" } }
exclude_files = { "build*/**" }
