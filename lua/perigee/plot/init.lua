--- Plots through gnuplot: curves, loss curves from a run's metrics, heat maps; as PNG, SVG or text.
--
-- Everything that comes from outside (titles, labels, paths) is quoted so that gnuplot expands nothing in it: a
-- gnuplot script can run shell commands.

local check = require("perigee.check")
local run = require("perigee.train.run")
local system = require("perigee.system")

local M = {}

local TERMINALS = {
    png = "pngcairo noenhanced size %d,%d background rgb 'white'",
    svg = "svg noenhanced size %d,%d dynamic background rgb 'white'",
    dumb = "dumb noenhanced size %d,%d",
}

--- A text as a string of gnuplot's. Whatever ASCII could mean something there (quotes, backquotes, macros) is written
-- as an octal escape; control characters become spaces.
local function quote(text)
    return '"' .. tostring(text):gsub("%c", " "):gsub("[^%w %.,_/%-\128-\255]", function(c)
        return ("\\%03o"):format(c:byte())
    end) .. '"'
end
M.quote = quote

local function number(value)
    return value - value == 0 and ("%.17g"):format(value) or "NaN"
end

--- Is gnuplot installed?
---@return boolean
function M.available()
    local pipe = io.popen("command -v gnuplot 2>/dev/null", "r")
    local found = pipe and pipe:read("*l")
    if pipe then
        pipe:close()
    end
    return found ~= nil and found ~= ""
end

-- Runs a gnuplot script; its messages are an error.
local function gnuplot(where, script)
    if not M.available() then
        check.fail("%s: gnuplot is not installed (Debian: apt install gnuplot-nox)", where)
    end
    local messages = os.tmpname()
    local pipe, why = io.popen("gnuplot >/dev/null 2>" .. system.shell_quote(messages), "w")
    if not pipe then
        os.remove(messages)
        check.fail("%s: cannot start gnuplot: %s", where, why)
    end
    pipe:write(script)
    pipe:close()
    local text = system.read_file(messages) or ""
    os.remove(messages)
    -- A warning names itself as one; the plot stands.
    local trouble = text:gsub("[^\n]*[Ww]arning:[^\n]*\n?", ""):gsub("^%s+", ""):gsub("%s+$", "")
    return trouble
end

-- Draws into options.path, or returns the text of a "dumb" plot.
local function draw(where, options, body)
    local kind = options.terminal or (options.path and options.path:match("%.(%w+)$")) or "dumb"
    kind = kind == "txt" and "dumb" or kind == "pngcairo" and "png" or kind
    local terminal = TERMINALS[kind]
    if not terminal then
        check.fail("%s: the terminal must be png, svg or dumb, got %s", where, tostring(kind))
    end
    if not options.path and kind ~= "dumb" then
        check.fail("%s: a %s plot needs options.path", where, kind)
    end
    local dumb = kind == "dumb"
    local width = check.integer(where, "width", options.width or (dumb and 79 or 900), 10, 10000)
    local height = check.integer(where, "height", options.height or (dumb and 22 or 540), 5, 10000)
    local path = options.path or os.tmpname()
    os.remove(path)   -- so that its presence afterwards says something
    local lines = {
        "set terminal " .. terminal:format(width, height),
        "set output " .. quote(path),
        "set encoding utf8",
        "set datafile missing 'NaN'",
    }
    if options.title then
        lines[#lines + 1] = "set title " .. quote(options.title)
    end
    for _, axis in ipairs { "x", "y" } do
        local label = options[axis .. "label"]
        if label then
            lines[#lines + 1] = ("set %slabel %s"):format(axis, quote(label))
        end
        if options["log" .. axis] then
            lines[#lines + 1] = "set logscale " .. axis
        end
    end
    lines[#lines + 1] = body
    lines[#lines + 1] = "unset output\n"
    local trouble = gnuplot(where, table.concat(lines, "\n"))
    local text, why = system.read_file(path)
    if trouble ~= "" or not text or text == "" then
        os.remove(path)
        check.fail("%s: gnuplot wrote no plot to %s: %s", where, path,
            trouble ~= "" and trouble or why or "the file is empty")
    end
    if options.path then
        return options.path
    end
    os.remove(path)
    return (text:gsub("\f", ""))
end

local DRAW = {
    path = check.none, terminal = check.none, width = check.none, height = check.none, title = check.none,
    xlabel = check.none, ylabel = check.none, logx = false, logy = false,
}

local function drawing_options(where, options, more)
    local defaults = {}
    for key, value in pairs(DRAW) do
        defaults[key] = value
    end
    for key, value in pairs(more or {}) do
        defaults[key] = value
    end
    return check.options(where, options, defaults)
end

local function as_list(where, name, values)
    if type(values) == "cdata" then
        values = values:flatten():totable()
    end
    if type(values) ~= "table" then
        check.fail("%s: %s must be a list of numbers or a tensor, got %s", where, name, check.describe(values))
    end
    for i, value in ipairs(values) do
        if type(value) ~= "number" then
            check.fail("%s: %s[%d] must be a number, got %s", where, name, i, check.describe(value))
        end
    end
    return values
end

--- Curves.
---@param series table[] each {x = list or tensor (N), y = list or tensor (N), title = text?}; x defaults to 0, 1,
---  2, ...
---@param options table? path (else the text of a plot is returned), terminal (png, svg, dumb; default from the
---  path's ending), width, height (pixels or characters), title, xlabel, ylabel, logx, logy
---@return string the path, or the text of the plot
function M.line(series, options)
    options = drawing_options("plot.line", options)
    if type(series) ~= "table" or #series == 0 then
        check.fail("plot.line: expected a list of series, got %s", check.describe(series))
    end
    local blocks, clauses = {}, {}
    for i, one in ipairs(series) do
        local y = as_list("plot.line", "y", one.y)
        local x = one.x and as_list("plot.line", "x", one.x)
        if x and #x ~= #y then
            check.fail("plot.line: series %d has %d x and %d y", i, #x, #y)
        elseif #y == 0 then
            check.fail("plot.line: series %d is empty", i)
        end
        local rows = {}
        for k = 1, #y do
            rows[k] = number(x and x[k] or k - 1) .. " " .. number(y[k])
        end
        blocks[i] = ("$series%d << EOD\n%s\nEOD"):format(i, table.concat(rows, "\n"))
        clauses[i] = ("$series%d using 1:2 with %s %s"):format(i, #y > 1 and "lines" or "points",
            one.title and "title " .. quote(one.title) or "notitle")
    end
    return draw("plot.line", options, table.concat(blocks, "\n") .. "\nset grid\nplot " .. table.concat(clauses, ", "))
end

--- The curves of a run: every metric whose name holds "loss", against the step.
---@param metrics string path of a metrics.jsonl, or of the run's folder
---@param options table? as plot.line's, and keys: the metrics to draw (default: all whose name holds "loss")
---@return string the path, or the text of the plot
function M.loss_curve(metrics, options)
    options = drawing_options("plot.loss_curve", options, { keys = check.none })
    if system.is_directory(metrics) then
        metrics = metrics .. "/metrics.jsonl"
    end
    local rows = run.read_metrics(metrics)
    local keys = options.keys
    if not keys then
        local seen = {}
        for _, row in ipairs(rows) do
            for key in pairs(row) do
                if key:find("loss", 1, true) then
                    seen[key] = true
                end
            end
        end
        keys = check.sorted_keys(seen)
    end
    local series = {}
    for _, key in ipairs(keys) do
        local x, y = {}, {}
        for _, row in ipairs(rows) do
            if type(row[key]) == "number" then
                x[#x + 1], y[#y + 1] = row.step, row[key]
            end
        end
        if #y > 0 then
            series[#series + 1] = { x = x, y = y, title = key }
        end
    end
    if #series == 0 then
        check.fail("plot.loss_curve: %s holds no %s", metrics, options.keys and table.concat(keys, ", ") or "loss")
    end
    options.keys = nil
    options.xlabel = options.xlabel or "step"
    if not options.ylabel and options.terminal ~= "dumb" and options.path then
        options.ylabel = "loss"
    end
    return M.line(series, options)
end

--- A heat map; row 0 is on top.
---@param matrix Tensor|number[][] (rows, columns)
---@param options table? as plot.line's, and xticks, yticks: lists of texts, one a column and one a row
---@return string the path
function M.heatmap(matrix, options)
    options = drawing_options("plot.heatmap", options, { xticks = check.none, yticks = check.none })
    if type(matrix) == "cdata" then
        if matrix:dim() ~= 2 then
            check.fail("plot.heatmap: expected a matrix, got %s", check.describe(matrix))
        end
        matrix = matrix:totable()
    end
    if type(matrix) ~= "table" or type(matrix[1]) ~= "table" or #matrix[1] == 0 then
        check.fail("plot.heatmap: expected a matrix, got %s", check.describe(matrix))
    end
    local rows = {}
    for i, row in ipairs(matrix) do
        local values = as_list("plot.heatmap", "row " .. i, row)
        if #values ~= #matrix[1] then
            check.fail("plot.heatmap: row %d has %d values, row 1 has %d", i, #values, #matrix[1])
        end
        local cells = {}
        for k, value in ipairs(values) do
            cells[k] = number(value)
        end
        rows[i] = table.concat(cells, " ")
    end
    local body = { "$matrix << EOD\n" .. table.concat(rows, "\n") .. "\nEOD", "unset key" }
    body[#body + 1] = ("set xrange [-0.5:%g]\nset yrange [%g:-0.5]"):format(#matrix[1] - 0.5, #matrix - 0.5)
    for axis, count in pairs { x = #matrix[1], y = #matrix } do
        local ticks = options[axis .. "ticks"]
        if ticks then
            if #ticks ~= count then
                check.fail("plot.heatmap: %d %sticks for %d", #ticks, axis, count)
            end
            local places = {}
            for k, text in ipairs(ticks) do
                places[k] = quote(text) .. " " .. (k - 1)
            end
            body[#body + 1] = ("set %stics (%s)"):format(axis, table.concat(places, ", "))
        end
    end
    body[#body + 1] = "plot $matrix matrix with image"
    return draw("plot.heatmap", options, table.concat(body, "\n"))
end

return M
