-- busted's output: a line a spec file while it runs (so a crash names its file), then what failed, then the
-- closing line.
--
-- scripts/test reads the closing line, "N successes / N failures / N errors / N pending : T seconds".

local pretty = require "pl.pretty"
local system = require "system"

local function message_of(failure)
    local message = failure.message
    if type(message) == "string" then
        return message
    end
    return message == nil and "error without a message" or pretty.write(message)
end

local function place_of(failure)
    local trace = failure.element.trace or failure.trace
    if trace and trace.short_src then
        return ("%s:%s"):format(trace.short_src, trace.currentline)
    end
    return failure.element.name or "?"
end

return function(options)
    local busted = require "busted"
    local handler = require "busted.outputHandlers.base"()
    local started, before

    local function counts()
        return {
            passed = handler.successesCount,
            failed = handler.failuresCount + handler.errorsCount,
            pending = handler.pendingsCount,
        }
    end

    local function write(...)
        io.stdout:write(...)
        io.stdout:flush()
    end

    function handler.file_start(file)
        started, before = system.monotime(), counts()
        write(("%-44s "):format(file.name or "?"))
        return nil, true
    end

    function handler.file_end()
        local now = counts()
        local failed, pending = now.failed - before.failed, now.pending - before.pending
        write(("%4d passed%s%s  %6.2f s\n"):format(
            now.passed - before.passed,
            failed > 0 and (", %d FAILED"):format(failed) or "",
            pending > 0 and (", %d skipped"):format(pending) or "",
            system.monotime() - started))
        return nil, true
    end

    function handler.suite_end()
        for _, list in ipairs { handler.pendings, handler.failures, handler.errors } do
            local kind = list == handler.pendings and "skipped" or list == handler.failures and "failed" or "error"
            for _, failure in ipairs(list) do
                write(("\n%s: %s\n  %s\n"):format(kind, failure.name, place_of(failure)))
                if kind ~= "skipped" or failure.message then
                    write("  ", (message_of(failure):gsub("\n", "\n  ")), "\n")
                end
                if options.verbose and failure.trace and failure.trace.traceback then
                    write(failure.trace.traceback, "\n")
                end
            end
        end
        write(("\n%d successes / %d failures / %d errors / %d pending : %.3f seconds\n"):format(
            handler.successesCount, handler.failuresCount, handler.errorsCount, handler.pendingsCount,
            handler.getDuration()))
        return nil, true
    end

    busted.subscribe({ "file", "start" }, handler.file_start)
    busted.subscribe({ "file", "end" }, handler.file_end)
    busted.subscribe({ "suite", "end" }, handler.suite_end)

    return handler
end
