-- Defines :Tandem. Everything else waits for require("tandem").setup{}.
if vim.g.loaded_tandem then
  return
end
vim.g.loaded_tandem = true

local NAMES = { "complete", "restart", "status", "toggle", "why" }

vim.api.nvim_create_user_command("Tandem", function(args)
  local name = args.fargs[1]
  if name and not vim.tbl_contains(NAMES, name) then
    vim.notify(("tandem: no such command: %s\nhint: one of %s"):format(name, table.concat(NAMES, ", ")), vim.log.levels.ERROR)
    return
  end
  require("tandem").command(args)
end, {
  nargs = "?",
  complete = function(typed)
    return vim.tbl_filter(function(name)
      return vim.startswith(name, typed)
    end, NAMES)
  end,
  desc = "Tandem: status, toggle, restart, complete, why",
})
