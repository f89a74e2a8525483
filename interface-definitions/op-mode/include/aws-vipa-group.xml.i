<!-- include start from aws-vipa-group.xml.i -->
<completionHelp>
  <script>/usr/bin/vyos-aws-vipa completion groups</script>
</completionHelp>
<!--
  Where VyOS runs operators' commands by vyos-op-run, it writes & as &amp;, replaces $@ and $* by the whole command,
  and refuses quotes: a name with one of these would reach the program changed.
-->
<constraint>
  <regex>([^\x22\x27&amp;&lt;&gt;$\x00-\x1f\x7f]|\$(?![@*]))+</regex>
</constraint>
<constraintErrorMessage>Only an administrator can name a group that contains a quote, &amp;, &lt;, &gt;, $@ or $*</constraintErrorMessage>
<!-- include end -->
